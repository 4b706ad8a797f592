"""A program that stands for `adb` with one phone: answers what a phone agent asks, and writes down every call.

FAKE_PHONE is its folder: screens/0.png … are what screencap sees, one after the other (the last for ever); calls.jsonl
gets one list of words a call; `keyboard` holds the current input method, `screen` the number of the next screen.
`devices`, where there is one, lists the serials that are connected, one a line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

SERIAL = "emulator-5554"
KEYBOARDS = ("com.android.inputmethod.latin/.LatinIME", "com.android.adbkeyboard/.AdbIME")
FOCUS = "  mCurrentFocus=Window{1f u0 com.android.launcher3/com.android.launcher3.Launcher}\n"


def answer(phone: Path, words: list[str]) -> str:
    keyboard = phone / "keyboard"
    if words[:1] == ["-s"]:
        words = words[2:]
    if words == ["version"]:
        return "Android Debug Bridge version 1.0.41\n"
    if words == ["devices"]:
        listed = phone / "devices"
        serials = listed.read_text().split() if listed.exists() else [SERIAL]
        return "List of devices attached\n" + "".join(f"{serial}\tdevice\n" for serial in serials) + "\n"
    if words == ["devices", "-l"]:
        return f"List of devices attached\n{SERIAL}         device product:p model:Pixel device:d transport_id:1\n\n"
    if words == ["shell", "ime", "list", "-s"]:
        return "\n".join(KEYBOARDS) + "\n"
    if words == ["shell", "settings", "get", "secure", "default_input_method"]:
        return (keyboard.read_text() if keyboard.exists() else KEYBOARDS[0]) + "\n"
    if words[:3] == ["shell", "ime", "set"]:
        keyboard.write_text(words[3])
        return f"Input method {words[3]} selected for user #0\n"
    if words == ["shell", "dumpsys", "window"]:
        return FOCUS
    if words[0] == "pull":
        shutil.copyfile(next_screen(phone), words[2])
        return f"{words[1]}: 1 file pulled\n"
    if words[:2] in (["shell", "screencap"], ["shell", "input"], ["shell", "monkey"], ["shell", "am"]):
        return ""
    raise SystemExit(f"fake adb: it has no answer to {words}")


def next_screen(phone: Path) -> Path:
    counter = phone / "screen"
    number = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(number + 1))
    last = max(int(path.stem) for path in (phone / "screens").glob("*.png"))
    return phone / "screens" / f"{min(number, last)}.png"


if __name__ == "__main__":
    folder = Path(os.environ["FAKE_PHONE"])
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    sys.stdout.write(answer(folder, sys.argv[1:]))
