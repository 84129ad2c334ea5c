"""Readers of data files: what they read, and one clear error for each way a file can be wrong."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardstep.formats import read_cifar, read_idx, read_idx_folder, read_npz


def idx_bytes(array: np.ndarray[Any, Any], code: int = 0x08) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def write_idx_folder(folder: Path, *, dots: bool = False, pack: bool = False) -> tuple[np.ndarray[Any, Any], ...]:
    generator = np.random.default_rng(0)
    arrays = tuple(
        generator.integers(0, high, (n, *shape)).astype(np.uint8)
        for n, shape, high in ((40, (5, 4), 256), (40, (), 3), (10, (5, 4), 256), (10, (), 3))
    )
    folder.mkdir(parents=True, exist_ok=True)
    for array, stem in zip(arrays, ("train-images", "train-labels", "t10k-images", "t10k-labels"), strict=True):
        name = f"{stem}{'.' if dots else '-'}idx{array.ndim}-ubyte"
        content = idx_bytes(array)
        (folder / (name + ".gz" if pack else name)).write_bytes(gzip.compress(content) if pack else content)
    return arrays


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
@pytest.mark.parametrize("pack", [False, True])
def test_idx_of_every_type_comes_back(tmp_path: Path, code: int, dtype: str, pack: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = idx_bytes(array, code)
    (tmp_path / "f").write_bytes(gzip.compress(content) if pack else content)
    back = read_idx(tmp_path / "f")
    assert back.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(back, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has the magic number none"),
        (b"\0\0\x07\x01" + bytes(8), "has the magic number 00000701"),
        (b"\1\0\x08\x01" + bytes(8), "has the magic number 01000801"),
        (b"\0\0\x08\x00" + bytes(1), r"has the magic number 00000800; .* number of axes \(1 to 64\)"),
        (b"\0\0\x08\x41" + bytes(300), "has the magic number 00000841"),
        (b"\0\0\x08\x03" + bytes(6), "is truncated: its head needs 16 bytes, found 10"),
        (idx_bytes(np.zeros((3, 4), np.uint8))[:-5], r"is truncated: shape \(3, 4\) needs 24 bytes, found 19"),
        (idx_bytes(np.zeros((3, 4), np.uint8)) + b"x", r"is too long: shape \(3, 4\) needs 24 bytes, found 25"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "is truncated: shape"),
        (gzip.compress(idx_bytes(np.zeros(99, np.uint8)), mtime=0)[:-9], "is a corrupted gzip file"),
        (b"\x1f\x8b" + bytes(30), "is a corrupted gzip file"),
    ],
)
def test_damaged_idx_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"images {message}"):
        read_idx(path)


def test_flipped_byte_in_gzip_is_seen(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8))))
    content[len(content) // 2] ^= 255
    (tmp_path / "f").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="corrupted gzip"):
        read_idx(tmp_path / "f")


@pytest.mark.parametrize("place", [".", "raw", "MNIST/raw", "FashionMNIST/raw"])
@pytest.mark.parametrize(("dots", "pack"), [(False, False), (True, False), (False, True)])
def test_idx_folder_is_found_in_every_layout(tmp_path: Path, place: str, dots: bool, pack: bool) -> None:
    arrays = write_idx_folder(tmp_path / place, dots=dots, pack=pack)
    found = read_idx_folder(tmp_path)
    assert found is not None
    for a, b in zip(found, arrays, strict=True):
        assert np.array_equal(a, b)


def test_idx_folder_that_is_incomplete_or_inconsistent_is_named(tmp_path: Path) -> None:
    assert read_idx_folder(tmp_path) is None
    write_idx_folder(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39, np.uint8)))
    with pytest.raises(
        ValueError, match=r"train images of shape \(40, 5, 4\) and uint8 labels of shape \(39,\) do not belong"
    ):
        read_idx_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"lacks t10k-labels-idx1-ubyte\[\.gz\]"):
        read_idx_folder(tmp_path)


def test_idx_labels_that_are_not_whole_numbers_are_refused(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(10, ">f4"), 0x0D))
    with pytest.raises(ValueError, match=r"test images .* and float32 labels .* allowed are \(n, ...\) and integers"):
        read_idx_folder(tmp_path)


def test_folder_of_two_data_sets_is_refused_not_guessed(tmp_path: Path) -> None:
    write_idx_folder(tmp_path / "MNIST" / "raw")
    write_idx_folder(tmp_path / "FashionMNIST" / "raw")
    with pytest.raises(ValueError, match=r"holds 2 data sets: name one of .*MNIST/raw, .*FashionMNIST/raw"):
        read_idx_folder(tmp_path)
    write_cifar(tmp_path, "cifar-10-batches-py")
    write_cifar(tmp_path, "cifar-100-binary")
    with pytest.raises(ValueError, match=r"holds 2 data sets: name one of .*cifar-10-batches-py, .*cifar-100-binary"):
        read_cifar(tmp_path)


def test_one_cifar_in_two_layouts_is_read_once(tmp_path: Path) -> None:
    parts = write_cifar(tmp_path, "cifar-10-batches-py")
    write_cifar(tmp_path, "cifar-10-batches-bin")
    found = read_cifar(tmp_path)
    assert found is not None
    assert np.array_equal(found[3], parts[-1][1])
    assert len(found[0]) == 30


def test_the_real_fashion_mnist_files_are_read() -> None:
    folder = Path(os.environ.get("HARDSTEP_DATA", "")) / "fashion-mnist"
    if "HARDSTEP_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("HARDSTEP_DATA does not hold fashion-mnist")
    found = read_idx_folder(folder)
    assert found is not None
    assert [a.shape for a in found] == [(60000, 28, 28), (60000,), (10000, 28, 28), (10000,)]
    assert np.bincount(found[3]).tolist() == [1000] * 10


def cifar_part(n: int, classes: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, 3072)).astype(np.uint8), generator.integers(0, classes, n)


LAYOUTS = {
    "cifar-10-batches-py": [*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"],
    "cifar-100-python": ["train", "test"],
    "cifar-10-batches-bin": [*[f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"],
    "cifar-100-binary": ["train.bin", "test.bin"],
}


def write_cifar(folder: Path, layout: str) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    parts = []
    (folder / layout).mkdir(parents=True)
    for seed, name in enumerate(LAYOUTS[layout]):
        hundred = "100" in layout
        x, y = cifar_part(6, 100 if hundred else 10, seed)
        parts.append((x, y))
        write_cifar_file(folder / layout / name, x, y, hundred=hundred)
    return parts


def write_cifar_file(path: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], *, hundred: bool) -> None:
    if path.suffix == ".bin":
        labels = np.stack([y * 0 + 7, y], axis=1) if hundred else y[:, None]
        path.write_bytes(np.concatenate([labels.astype(np.uint8), x], axis=1).tobytes())
    else:
        content = {b"data": x, b"fine_labels" if hundred else b"labels": y.tolist(), b"batch_label": b"made"}
        path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("inside", [False, True])
def test_cifar_is_read_from_python_and_binary_files(tmp_path: Path, layout: str, inside: bool) -> None:
    parts = write_cifar(tmp_path, layout)
    found = read_cifar(tmp_path / layout if inside else tmp_path)
    assert found is not None
    x_train, y_train, x_test, y_test = found
    assert np.array_equal(x_train.reshape(-1, 3072), np.concatenate([x for x, _ in parts[:-1]]))
    assert np.array_equal(y_train, np.concatenate([y for _, y in parts[:-1]]))
    assert np.array_equal(x_test.reshape(-1, 3072), parts[-1][0])
    assert np.array_equal(y_test, parts[-1][1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cifar_with_a_missing_or_truncated_file_is_named(tmp_path: Path, layout: str) -> None:
    assert read_cifar(tmp_path) is None
    write_cifar(tmp_path, layout)
    last = tmp_path / layout / LAYOUTS[layout][-1]
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{last.name} is (truncated|no CIFAR python file)"):
        read_cifar(tmp_path)
    last.unlink()
    with pytest.raises(ValueError, match=f"lacks {last.name}"):
        read_cifar(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cifar_label_out_of_range_is_named(tmp_path: Path, layout: str) -> None:
    write_cifar(tmp_path, layout)
    top = 100 if "100" in layout else 10
    x, y = cifar_part(3, top, 0)
    y[1] = 200
    write_cifar_file(tmp_path / layout / LAYOUTS[layout][0], x, y, hundred=top == 100)
    with pytest.raises(ValueError, match=f"label 200 in row 1, allowed are 0..{top - 1}"):
        read_cifar(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, r"data of shape \(2, 3072\) and 1 labels"),
        ({b"data": np.zeros((2, 3071), np.uint8), b"labels": [1, 2]}, r"data of shape \(2, 3071\) and 2 labels"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, "an array of type 'f4', images are 8-bit"),
        ({b"data": np.array([None]), b"labels": [1]}, "an array of type 'O8', images are 8-bit"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1.5]}, "'float' object cannot be interpreted as an int"),
        ({b"data": b"text", b"labels": [1]}, "has no attribute 'array'"),
        ([1, 2], "list indices must be integers"),
    ],
)
def test_cifar_python_file_with_other_content_is_named(tmp_path: Path, content: Any, message: str) -> None:
    write_cifar(tmp_path, "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=f"data_batch_2 is no CIFAR python file .*{message}.*; fetch it again"):
        read_cifar(tmp_path)


def test_old_and_new_names_of_numpy_are_understood(tmp_path: Path) -> None:
    parts = write_cifar(tmp_path, "cifar-100-python")
    path = tmp_path / "cifar-100-python" / "test"
    new = path.read_bytes()
    old = new.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert new != old
    path.write_bytes(old)
    found = read_cifar(tmp_path)
    assert found is not None
    assert np.array_equal(found[2].reshape(-1, 3072), parts[-1][0])


def test_columns_first_array_in_a_pickle_keeps_its_order(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar-100-python")
    x, y = cifar_part(4, 100, 1)
    write_cifar_file(tmp_path / "cifar-100-python" / "test", np.asfortranarray(x), y, hundred=True)
    found = read_cifar(tmp_path)
    assert found is not None
    assert np.array_equal(found[2].reshape(4, 3072), x)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("content", [{b"data": Attack(), b"labels": []}, Attack()], ids=["inside", "outside"])
def test_pickle_that_calls_a_function_is_refused_and_nothing_runs(
    tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"it asks for (posix|nt)\.system"):
        read_cifar(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_npz_is_read_in_both_layouts(tmp_path: Path) -> None:
    x, y = np.ones((4, 2)), np.arange(4)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    assert np.array_equal(read_npz(tmp_path / "a.npz")["y"], y)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert set(read_npz(tmp_path / "b.npz")) == {"x_train", "y_train", "x_test", "y_test"}


def test_npz_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", images=np.ones(3))
    with pytest.raises(ValueError, match=r"holds \['images'\]; expected x and y"):
        read_npz(tmp_path / "names.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([object()]), y=np.ones(1))
    with pytest.raises(ValueError, match=r"cannot be read as \.npz of plain arrays"):
        read_npz(tmp_path / "objects.npz")
    np.savez(tmp_path / "cut.npz", x=np.ones((50, 50)), y=np.ones(50))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        read_npz(tmp_path / "cut.npz")
    for name in ("one.npy", "empty.npz", "text.npz"):
        (tmp_path / name).write_bytes(b"text" if name[0] == "t" else b"")
    np.save(tmp_path / "one.npy", np.ones(3))
    for name in ("one.npy", "empty.npz", "text.npz"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as \.npz of plain arrays \(File is not a zip"):
            read_npz(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("names", "rows", "message"),
    [
        (("x", "y"), (4, 3), r"x has shape \(4, 2\) and y \(3,\)"),
        (("x_train", "y_train", "x_test", "y_test"), (4, 4, 2, 3), r"x_test has shape \(2, 2\) and y_test \(3,\)"),
    ],
)
def test_npz_whose_rows_disagree_is_named(
    tmp_path: Path, names: tuple[str, ...], rows: tuple[int, ...], message: str
) -> None:
    arrays = {name: np.ones((n, 2) if name[0] == "x" else n) for name, n in zip(names, rows, strict=True)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=f"{message}; give both the same number of rows"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["idx", "gzip", "cifar", "npz"])
def test_no_damage_gives_anything_but_arrays_or_a_value_error(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    if kind == "cifar":
        write_cifar(tmp_path, "cifar-100-python")
        path = tmp_path / "cifar-100-python" / "test"
    else:
        path = tmp_path / "file"
        content = idx_bytes(np.arange(30, dtype=np.uint8).reshape(5, 6))
        path.write_bytes(gzip.compress(content) if kind == "gzip" else content)
    if kind == "npz":
        with path.open("wb") as file:
            np.savez_compressed(file, x=np.ones((5, 2)), y=np.arange(5))
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 300), 3):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(damaged[: generator.integers(1, 2 * len(whole))])
        try:
            {"cifar": lambda: read_cifar(tmp_path), "npz": lambda: read_npz(path)}.get(kind, lambda: read_idx(path))()
        except ValueError:
            refused += 1
    assert refused > 75
