"""`penstock migrate`."""

import click

from penstock.cli.access import reaches_store, store
from penstock.cli.exits import STORE
from penstock.cli.outbox import make_outbox
from penstock.engine import Examination
from penstock.engines.open import examine, without_password
from penstock.model.errors import StoreInvalid

__all__ = ["migrate"]


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@reaches_store
@click.pass_context
def migrate(ctx: click.Context, dry_run: bool) -> None:
    """Bring the store to this version's schema; make it if there is none, and the table of the outbox if there is one.

    Workers and applications do the same when they open a store. A newer schema is refused and left as it is.
    """
    with store(ctx) as app:
        url = app.settings.url
        before = examine(url)
        if before.exists and before.schema is None:
            raise StoreInvalid(_fault(before))
        found = before.schema or 0
        shown = without_password(url)
        if dry_run:
            click.echo(_told(shown, found, before.known_schema, "would go"))
            make_outbox(app, dry_run=True)
            if found > before.known_schema:
                ctx.exit(STORE)
            return
        schema = app.engine.describe().schema
        click.echo(_told(shown, found, schema, "went"))
        make_outbox(app)


def _fault(examined: Examination) -> str:
    fault = next(one for one in examined.findings if one.verdict == "fault")
    return f"{fault.found}. {fault.remedy}"


def _told(url: str, found: int, wanted: int, verb: str) -> str:
    if found == wanted:
        return f"{url} has schema {found}, which is this version's; nothing to do."
    if found > wanted:
        return f"{url} has schema {found}, newer than this version's {wanted}; upgrade penstock here."
    start = f"schema {found}" if found else "nothing"
    return f"{url} {verb} from {start} to schema {wanted}."
