"""SQLAlchemy under OpenTelemetry's instrumentation."""

import asyncio

import sqlalchemy as sa
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

import micromegas as mm

mm.init()
mm.install_otel()
engine = sa.create_engine("sqlite://")
SQLAlchemyInstrumentor().instrument(engine=engine)


async def main() -> None:
    async with mm.span("caller"):
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE shelf (item INTEGER)"))
            connection.execute(sa.text("INSERT INTO shelf VALUES (1), (2)"))
            try:
                connection.execute(sa.text("SELECT nothing FROM nowhere"))
            except sa.exc.OperationalError:
                mm.log.info("as expected")


asyncio.run(main())
