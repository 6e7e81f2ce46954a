"""A member's process that trains nothing: it does what the configuration in its folder says."""

import json
import os
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
record = json.loads((folder / "member.json").read_text())
told = record["config"]["pretend"]


def send(event: str, **values) -> None:
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


with (folder.parents[1] / "order.txt").open("a") as order:
    order.write(f"+{record['member']}/{record['seed']}\n")
(folder / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
last = folder / "last.ckpt"
epoch = int(last.read_text()) if last.is_file() else 0
send("fit", epochs=3, epoch=epoch)
while epoch < 3:
    if told.get("hangs") == epoch and not (folder / "hung").exists():
        (folder / "hung").touch()
        send("step", epoch=epoch, step=1, steps=4, loss=0.5)
        time.sleep(60)
    if "fails" in told and epoch == 1:
        sys.stderr.write("Traceback: somewhere\nRuntimeError: it broke\n")
        if told["fails"] == "input":
            send("failed", reason="model.model: what was given is of no use")
        sys.exit(3)
    if told.get("killed"):
        os.kill(os.getpid(), 9)
    epoch += 1
    last.write_text(str(epoch))
    send("step", epoch=epoch - 1, step=2, steps=4, loss=0.5)
    send("epoch", epoch=epoch, val_loss=1 / epoch, seconds=0.01)
time.sleep(told.get("takes", 0))
score = json.dumps({"test/miou": 0.5, "test/loss": 1.0})
if not told.get("silent"):
    (folder / "test_metrics.json").write_text(score)
(folder / "measures.json").write_text(json.dumps({"monitor": ["val/miou", "max"]}))
with (folder.parents[1] / "order.txt").open("a") as order:
    order.write(f"-{record['member']}/{record['seed']}\n")
