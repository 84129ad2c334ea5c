"""How the recorded lines of each benchmark become tables, numbers and pictures; nothing here trains or measures."""
