"""300 of script/trials' trials, shared by the accounts: 10,000 are for a quiet hour."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.conftest import ACCOUNTS
from tests.support.account import Account
from tests.support.components import ROOT
from tests.support.product import Product

COUNT = 300
# A failure names the seed; the machine's own timing is what differs from run to run.
SEED = 22


def test_nothing_is_lost_or_left(account: Account, product: Product, scratch: Path) -> None:
    """The script runs as the account, which may not be able to read the checkout."""
    checkout = scratch / "checkout"
    (checkout / "script").mkdir(parents=True)
    for name in ("trials", "components"):
        shutil.copy(ROOT / "script" / name, checkout / "script" / name)
    shutil.copytree(ROOT / "tests" / "support", checkout / "tests" / "support")
    shutil.copytree(product.library / "roadstead", checkout / "src" / "roadstead")
    account.own(checkout)
    share = COUNT // len(ACCOUNTS)
    first = share * ACCOUNTS.index("root" if account.uid == 0 and os.geteuid() == 0 else "user")
    argv = [product.python, checkout / "script" / "trials", f"--seed={SEED}"]
    done = account.run([*argv, f"--first={first}", f"--count={share}"], timeout=280)
    assert done.returncode == 0, str(done)
    assert done.stdout == f"{share} trials, seed {SEED}: nothing lost, nothing left\n"
