"""Headless Chromium by its DevTools protocol over pipes: no driver and no further package."""

import json
import os
import pathlib
import shutil
import subprocess
import time

BINARY = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Chromium:
  """One page. `profile` is an empty folder for what the browser writes."""

  def __init__(self, profile: pathlib.Path):
    read_end, self._out = os.pipe()
    self._in, write_end = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    command = f'exec "$0" "$@" 3<&{read_end} 4>&{write_end}'
    self._process = subprocess.Popen(
        ["bash", "-c", command, BINARY, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-dev-shm-usage", "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={profile}", "about:blank"],
        pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"HOME": str(profile)})
    os.close(read_end)
    os.close(write_end)
    self._rest, self._number, self._session, self.errors = b"", 0, None, []
    target = self._ask("Target.getTargets")["targetInfos"]
    page = next((one["targetId"] for one in target if one["type"] == "page"), None) or self._ask("Target.createTarget", url="about:blank")["targetId"]
    self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "DOM", "Log"):
      self.send(f"{domain}.enable")

  def send(self, method: str, **params):
    """The result of a command to the page."""
    return self._ask(method, **params)

  def evaluate(self, script: str):
    """The value of an expression (or of its promise)."""
    found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    if "exceptionDetails" in found:
      raise AssertionError(found["exceptionDetails"])
    return found["result"].get("value")

  def wait(self, script: str, seconds: float = 30.0):
    """The first value of an expression that is true."""
    end = time.monotonic() + seconds
    while not (value := self.evaluate(script)):
      if time.monotonic() > end:
        raise AssertionError(f"still not true: {script}")
      time.sleep(0.05)
    return value

  def centre(self, selector: str, nth: int = 0) -> dict[str, float]:
    """x and y of the middle of an element, scrolled to."""
    x, y = self.evaluate(f"(() => {{ const e = document.querySelectorAll({selector!r})[{nth}]; e.scrollIntoView({{block: 'nearest'}}); "
                         "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()")
    return {"x": x, "y": y}

  def hover(self, selector: str, nth: int = 0) -> None:
    self.send("Input.dispatchMouseEvent", type="mouseMoved", **self.centre(selector, nth))

  def click(self, selector: str, nth: int = 0) -> None:
    for kind in ("mousePressed", "mouseReleased"):
      self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **self.centre(selector, nth))

  def press(self, key: str) -> None:
    code = {"Tab": 9, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38}[key]
    for kind in ("keyDown", "keyUp"):
      self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

  def choose(self, selector: str, files) -> None:
    """Sets the files of an input."""
    root = self.send("DOM.getDocument")["root"]["nodeId"]
    node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    self.send("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

  def drop(self, selector: str, files) -> None:
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
      self.send("Input.dispatchDragEvent", type=kind, data=data, **self.centre(selector))

  def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
    """Sets the window and the scheme of colours."""
    self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
    self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

  def screenshot(self, path: pathlib.Path) -> None:
    import base64

    path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

  def close(self) -> None:
    self._session = None
    try:
      self._ask("Browser.close")
    except (EOFError, BrokenPipeError):
      pass
    finally:
      try:
        self._process.wait(10)
      except subprocess.TimeoutExpired:
        self._process.kill()
      os.close(self._in)
      os.close(self._out)

  def _ask(self, method: str, **params):
    self._number += 1
    message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
    os.write(self._out, json.dumps(message).encode() + b"\0")
    while True:
      while b"\0" not in self._rest:
        piece = os.read(self._in, 1 << 16)
        if not piece:
          raise EOFError("the browser is gone")
        self._rest += piece
      text, _, self._rest = self._rest.partition(b"\0")
      found = json.loads(text)
      if found.get("id") == self._number:
        if "error" in found:
          raise AssertionError(f"{method}: {found['error']}")
        return found["result"]
      if found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
        self.errors.append(found["params"])
