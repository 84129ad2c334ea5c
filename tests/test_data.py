"""Data: where it is found, how it is split, and one clear error for each bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.utils import Bunch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hardstep import data as hd
from hardstep.grid import Grid
from hardstep.parts import Samples, Streamed, batches

from .test_formats import write_cifar, write_idx_folder

FLOATS = np.random.default_rng(0).random((60, 4), np.float32)
LABELS = np.arange(60) % 3


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data but what a test puts somewhere; no network."""
    monkeypatch.delenv("HARDSTEP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in the tests")

    monkeypatch.setattr(hd, "fetch_openml", refuse)


def spoil(index: tuple[int, int], value: float) -> np.ndarray[Any, Any]:
    x = FLOATS.copy()
    x[index] = value
    return x


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (spoil((7, 2), np.nan), LABELS, r"x holds 1 values that are NaN or infinite, the first at \[7, 2\]"),
        (spoil((3, 0), -np.inf), LABELS, r"NaN or infinite, the first at \[3, 0\]"),
        (FLOATS[:0], LABELS[:0], r"n >= 1, got x of shape \(0, 4\)"),
        (FLOATS[:, 0], LABELS, r"got x of shape \(60,\)"),
        (FLOATS, LABELS[:-1], "x has 60 rows and y has 59"),
        (FLOATS, LABELS.astype(float), r"labels are integers, use y.long\(\)"),
        (FLOATS, LABELS[:, None], r"labels are integers of shape \(n,\), got torch.int64 of shape \(60, 1\)"),
        (FLOATS, LABELS * 0 + 1, "holds one class only, 1; give at least two"),
        (FLOATS, LABELS * 2, r"class 1 of 0\.\.4 has no training row \(2 classes have none\); renumber"),
        (FLOATS, LABELS + 10**12, r"class 0 of 0\.\.1000000000002 has no training row"),
        (FLOATS, LABELS - 1, r"label -1 at row 0 of y is out of range: 2 classes are known, allowed are 0\.\.1"),
        (FLOATS.astype(object), LABELS, "x has the type object, allowed are booleans, integers and floats"),
        (FLOATS.astype(complex), LABELS, "x has the type complex128, allowed are"),
        (FLOATS, LABELS.astype("M8[D]"), r"y has the type datetime64\[D\], allowed are"),
        (FLOATS, np.array(["a"] * 59 + [None], object), "y of type object holds None; labels are integers, or text"),
        (FLOATS, np.array([2, 1] * 30, object), "y of type object holds 2; labels are integers, or text"),
        (np.full((60, 2), 1e300), LABELS, "x holds 120 values that are NaN or infinite"),
        (FLOATS, np.r_[LABELS[:-1], 3], r"cannot be split with a share of 0.2 in every class"),
        (FLOATS, np.full((60, 1), np.inf, np.float32), "y holds 60 values that are NaN or infinite"),
    ],
)
def test_bad_arrays_are_named(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hd.from_arrays(x, y)


def test_given_outputs_are_held_against_the_labels() -> None:
    assert hd.from_arrays(FLOATS, LABELS, outputs=3).outputs == 3
    with pytest.raises(ValueError, match=r"class 3 of 0\.\.3 has no training row \(1 classes have none\)"):
        hd.from_arrays(FLOATS, LABELS, outputs=4)
    with pytest.raises(ValueError, match=r"label 2 at row 2 of y is out of range: 2 classes are known"):
        hd.from_arrays(FLOATS, LABELS, outputs=2)
    with pytest.raises(ValueError, match=r"y of train is torch.float32 of shape \(4,\) a row, expected .* \(3,\)"):
        hd.from_arrays(FLOATS, FLOATS, outputs=3)


@pytest.mark.parametrize(
    "x",
    [
        FLOATS.astype(">f4"),
        FLOATS.astype(np.float64),
        FLOATS.astype(np.longdouble),
        np.broadcast_to(FLOATS, (1, 60, 4))[0],  # not writable
        FLOATS[:, ::-1][:, ::-1],
        torch.tensor(FLOATS, requires_grad=True),
    ],
    ids=["big-endian", "float64", "longdouble", "read-only", "strided", "with gradient"],
)
def test_numbers_of_any_kind_become_float32(x: Any) -> None:
    data = hd.from_arrays(x, LABELS, val_share=0.0, test=(x[:3], LABELS[:3]))
    assert isinstance(data.train, Samples) and isinstance(data.test, Samples)
    assert data.train.x.dtype == torch.float32 and not data.train.x.requires_grad
    assert torch.equal(data.train.x, torch.from_numpy(FLOATS))
    assert torch.equal(data.test.x, torch.from_numpy(FLOATS[:3]))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
def test_labels_of_any_integer_type_become_int64(dtype: type) -> None:
    data = hd.from_arrays(FLOATS, (LABELS > 0).astype(dtype), val_share=0.0, test_share=0.0)
    assert isinstance(data.train, Samples)
    assert torch.equal(data.train.y, torch.from_numpy(LABELS > 0).long())


def test_number_targets_are_split_too() -> None:
    data = hd.from_arrays(FLOATS, FLOATS[:, :2].astype(np.float64))
    assert not data.classification and data.outputs == 2
    assert isinstance(data.train, Samples) and data.train.y.dtype == torch.float32
    assert torch.equal(data.train.y, data.train.x[:, :2])


def test_label_of_the_test_part_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="the test part: x holds 1 values that are NaN"):
        hd.from_arrays(FLOATS, LABELS, test=(spoil((1, 1), np.nan), LABELS))
    with pytest.raises(ValueError, match=r"y of test is torch.float32 of shape .* a row, expected is a label"):
        hd.from_arrays(FLOATS, LABELS, test=(FLOATS, FLOATS[:, :1]))
    with pytest.raises(ValueError, match=r"label 12 at row 1 of test is out of range: 3 classes are known"):
        hd.from_arrays(FLOATS, LABELS, test=(FLOATS[:2], np.array([0, 12])))
    with pytest.raises(ValueError, match=r"samples of test have shape \(3,\), of train \(4,\)"):
        hd.from_arrays(FLOATS, LABELS, test=(FLOATS[:2, :3], np.array([0, 1])))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_share_out_of_range_is_named(share: float) -> None:
    with pytest.raises(ValueError, match=r"val_share is a share in \[0, 1\), got"):
        hd.from_arrays(FLOATS, LABELS, val_share=share)


def test_codes_without_a_grid_and_numbers_with_one_are_refused() -> None:
    x = torch.zeros(3, 2, dtype=torch.uint8)
    for values, grid in ((x, None), (x.float(), Grid(1.0, 0))):
        with pytest.raises(ValueError, match="uint8 codes need a grid and other numbers must not have one"):
            Samples(values, torch.arange(3), grid)


def test_split_is_stratified_and_fixed_by_its_seed() -> None:
    x = np.arange(600, dtype=np.float32).reshape(300, 2)
    first, again, other = (hd.from_arrays(x, np.arange(300) % 3, seed=seed) for seed in (0, 0, 1))
    assert isinstance(first.train, Samples) and isinstance(first.val, Samples) and isinstance(first.test, Samples)
    assert [len(part) for part in (first.train, first.val, first.test)] == [216, 24, 60]
    rows = torch.cat([first.train.x, first.val.x, first.test.x])[:, 0]
    assert torch.equal(rows.sort().values, torch.arange(0, 600, 2).float())
    for part in (first.train, first.val, first.test):
        assert len(set(torch.bincount(part.y).tolist())) == 1
    assert isinstance(again.train, Samples) and isinstance(other.train, Samples)
    assert torch.equal(first.train.x, again.train.x)
    assert not torch.equal(first.train.x, other.train.x)


def test_no_share_gives_no_part() -> None:
    data = hd.from_arrays(FLOATS, LABELS, val_share=0.0, test_share=0.0)
    assert data.val is None and data.test is None and len(data.train) == 60


def test_text_labels_are_numbered_in_sorted_order() -> None:
    names = np.array(["b", "c", "a"])[LABELS]
    data = hd.from_arrays(FLOATS, names, val_share=0.0, test=(FLOATS[:2], np.array(["a", "c"])))
    assert isinstance(data.train, Samples) and isinstance(data.test, Samples)
    assert data.train.y[:3].tolist() == [1, 2, 0]
    assert data.test.y.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"the test part: labels \['z'\] do not appear in training"):
        hd.from_arrays(FLOATS, names, test=(FLOATS[:2], np.array(["a", "z"])))


def test_batches_turn_codes_into_values_by_the_grid() -> None:
    x = torch.arange(12, dtype=torch.uint8).reshape(6, 2)
    part = Samples(x, torch.arange(6), Grid(0.5, 4))
    (first, y), _ = batches(part, [torch.tensor([5, 0]), torch.tensor([1])])
    assert first.tolist() == [[3.0, 3.5], [-2.0, -1.5]]
    assert y.tolist() == [5, 0]
    assert torch.equal(part.x, x)


class Squares(Dataset[Any]):
    """A map-style dataset that counts what is read."""

    def __init__(self, n: int = 20, top: int = 3) -> None:
        self.n, self.top = n, top

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((2,), float(index)), index % self.top


@pytest.mark.parametrize("workers", [0, 1])
def test_any_dataset_or_loader_is_streamed_in_the_order_asked(workers: int) -> None:
    loader: DataLoader[Any] = DataLoader(Squares(), batch_size=3, shuffle=True, num_workers=workers)
    data = hd.from_parts(loader, Squares(5), outputs=3)
    assert isinstance(data.train, Streamed)
    assert data.classification and data.shape == (2,) and data.train.workers == workers
    read = list(batches(data.train, [torch.tensor([4, 1]), torch.tensor([19])]))
    assert [x[:, 0].tolist() for x, _ in read] == [[4.0, 1.0], [19.0]]
    assert [y.tolist() for _, y in read] == [[1, 1], [1]]


def test_tensor_dataset_stays_in_memory() -> None:
    rows = TensorDataset(torch.zeros(4, 3, dtype=torch.uint8), torch.arange(4) % 2)
    data = hd.from_parts(rows, outputs=2)
    assert isinstance(data.train, Samples)
    assert data.train.grid is not None


def test_streamed_label_out_of_range_is_named() -> None:
    data = hd.from_parts(Squares(20, 5), outputs=3)
    with pytest.raises(ValueError, match=r"label 3 at row 3 of the dataset is out of range: 3 classes are known"):
        data.train.take([0, 1, 2, 3])


def test_digits_are_codes_of_sixteenths() -> None:
    data = hd.load("digits")
    assert isinstance(data.train, Samples)
    assert data.train.x.dtype == torch.uint8 and int(data.train.x.max()) == 16
    x, _ = next(batches(data.train, [torch.arange(100)]))
    assert float(x.max()) == 1.0


@pytest.mark.parametrize("where", ["path", "HARDSTEP_DATA", "cache"])
def test_named_data_are_found_in_the_stated_order(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = {"path": tmp_path / "x", "HARDSTEP_DATA": tmp_path / "own", "cache": tmp_path / "cache" / "hardstep"}[
        where
    ]
    write_idx_folder(folder / "mnist", pack=True)
    if where == "HARDSTEP_DATA":
        monkeypatch.setenv("HARDSTEP_DATA", str(folder))
    data = hd.load(folder / "mnist" if where == "path" else "mnist")
    assert data.shape == (1, 5, 4)
    assert data.test is not None and len(data.test) == 10
    assert len(data.train) == 36


def test_missing_data_name_all_places_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDSTEP_DATA", str(tmp_path / "own"))
    with pytest.raises(FileNotFoundError) as raised:
        hd.load("fashion-mnist")
    text = str(raised.value)
    for place in ("own/fashion-mnist", "cache/hardstep/fashion-mnist", "/usr/share/dataset-fashion-mnist"):
        assert place in text
    assert "no network in the tests" in text
    assert "apt install dataset-fashion-mnist" in text


@pytest.mark.parametrize("source", ["folder/mnist", "table.npz", Path("mnist"), "/nowhere/mnist"])
def test_path_that_does_not_exist_is_named_and_no_network_asked(source: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no file or folder {source}"):
        hd.load(source)


def test_existing_path_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx_folder(tmp_path / "digits")
    assert hd.load("digits").shape == (1, 8, 8)
    monkeypatch.chdir(tmp_path)
    assert hd.load("digits").shape == (1, 5, 4)


def test_size_is_refused_where_nothing_is_resized() -> None:
    with pytest.raises(ValueError, match=r"size=\(4, 4\) and margin=None resize the images of class folders, and dig"):
        hd.load("digits", size=(4, 4))
    with pytest.raises(ValueError, match=r"size is the height and width of images, at least 1 each, got \(0, 4\)"):
        hd.load("digits", size=(0, 4))


def test_path_with_nothing_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no data that is understood: four IDX files"):
        hd.load(tmp_path)


def test_cifar_folder_and_npz_are_loaded(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar-10-batches-bin")
    with pytest.raises(ValueError, match=r"cannot be split|has no training row"):
        hd.load(tmp_path)  # 30 random rows do not cover ten classes twice
    np.savez(tmp_path / "table.npz", x=FLOATS, y=LABELS)
    data = hd.load(tmp_path / "table.npz")
    assert (data.name, data.shape, data.outputs) == ("table", (4,), 3)
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6)).astype(np.uint8)
    np.savez(tmp_path / "keras.npz", x_train=images, y_train=LABELS, x_test=images[:9], y_test=LABELS[:9])
    keras = hd.load(tmp_path / "keras.npz")
    assert keras.test is not None and len(keras.test) == 9
    assert keras.train.grid is not None and keras.shape == (1, 6, 6)
    colour = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3)).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", x=colour, y=LABELS)
    data = hd.load(tmp_path / "colour.npz", val_share=0.0, test_share=0.0)
    assert isinstance(data.train, Samples)
    assert torch.equal(data.train.x[7, 2], torch.from_numpy(colour[7, :, :, 2]))


def write_images(folder: Path, mode: str = "RGB", classes: tuple[str, ...] = ("cat", "dog"), n: int = 10) -> None:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            size = (7, 5) if i == 0 else (9, 9)
            Image.new(mode, size, 40 * label + 10 if mode == "L" else (40 * label + 10, 0, i)).save(
                folder / name / f"{i}.png"
            )


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_image_folder_is_read_lazily_resized_and_split(tmp_path: Path, mode: str, channels: int) -> None:
    write_images(tmp_path, mode)
    data = hd.load(tmp_path, val_share=0.25)
    assert data.shape == (channels, 5, 7)
    assert data.val is not None and data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [12, 4, 4]
    x, y = data.train.take([0, 1, 2])
    assert x.dtype == torch.uint8
    assert torch.equal(x[:, 0, 0, 0].long(), 40 * y + 10)
    assert hd.load(tmp_path, size=(4, 4)).shape == (channels, 4, 4)


def test_image_folder_with_parts_keeps_them(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_images(tmp_path / part, n=3)
    data = hd.load(tmp_path)
    assert data.val is not None and data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [6, 6, 6]


def test_image_folder_that_is_damaged_is_named(tmp_path: Path) -> None:
    write_images(tmp_path / "a")
    (tmp_path / "a" / "dog" / "3.png").write_bytes(b"not an image")
    data = hd.load(tmp_path / "a", val_share=0.0, test_share=0.0)
    with pytest.raises(ValueError, match=r"3\.png is not a readable image"):
        data.train.take(list(range(len(data.train))))
    (tmp_path / "a" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"class 'empty' of .* has no images"):
        hd.load(tmp_path / "a")
    write_images(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match=r"has images of one class only, 'cat'; give a folder of at least two"):
        hd.load(tmp_path / "one")
    write_images(tmp_path / "b" / "train")
    write_images(tmp_path / "b" / "test", classes=("cat", "cow"))
    with pytest.raises(ValueError, match=r"has the classes \['cat', 'cow'\], train has \['cat', 'dog'\]"):
        hd.load(tmp_path / "b")


def bunch(x: Any, y: Any, **columns: Any) -> Bunch:
    """What `fetch_openml` returns, as far as it is looked at."""
    return Bunch(data=x, target=y, feature_names=[f"f{i}" for i in range(x.shape[1])], categories=columns)


@pytest.mark.parametrize(("name", "asked"), [("fashion-mnist", "Fashion-MNIST"), ("mnist", "mnist_784")])
def test_openml_is_asked_last_and_its_images_take_their_shape(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: str, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10_060, 784)).astype(float)

    def fetch(dataset: str, **options: Any) -> Bunch:
        assert (dataset, options["version"]) == (asked, 1)
        assert options["data_home"] == str(tmp_path / "cache" / "hardstep")
        assert options["parser"] == "liac-arff", "the others need pandas"
        return bunch(pixels, (np.arange(len(pixels)) % 10).astype(str).astype(object))

    monkeypatch.setattr(hd, "fetch_openml", fetch)
    data = hd.load(name, val_share=0.0)
    assert data.shape == (1, 28, 28)
    assert isinstance(data.train, Samples) and isinstance(data.test, Samples)
    assert (len(data.train), len(data.test)) == (60, 10_000)
    assert data.train.x.dtype == torch.uint8
    assert np.array_equal(data.train.x.flatten(1).numpy(), pixels[:60])
    pixels[3, 3] = 0.5
    with pytest.raises(ValueError, match=r"are not 8-bit images of shape \(1, 28, 28\)"):
        hd.load(name)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (bunch(spoil((7, 2), np.nan), LABELS.astype(str)), "has missing values in the columns 'f2'; prepare it"),
        (bunch(FLOATS, LABELS.astype(str), f0=["a", "b"]), "columns that are categories, not numbers: 'f0'; prepare"),
        (bunch(csr_matrix(FLOATS), LABELS.astype(str)), "is a sparse matrix; prepare it"),
        (bunch(FLOATS, None), "has no target; prepare it"),
        (bunch(FLOATS, np.array([None, "a", "b"] * 20, object)), "y of type object holds None"),
    ],
)
def test_openml_table_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, found: Bunch, message: str) -> None:
    monkeypatch.setattr(hd, "fetch_openml", lambda *_, **__: found)
    with pytest.raises(ValueError, match=message):
        hd.load("table")


def test_openml_numbers_are_targets_and_text_is_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hd, "fetch_openml", lambda *_, **__: bunch(FLOATS, FLOATS[:, 0].astype(float)))
    data = hd.load("numbers")
    assert (data.outputs, data.classification) == (1, False)
    monkeypatch.setattr(hd, "fetch_openml", lambda *_, **__: bunch(FLOATS, np.array(["b", "a"] * 30, object)))
    data = hd.load("words")
    assert (data.outputs, data.classification) == (2, True)
