"""What the settings of every account broker have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=0, le=65_535)]


class BrokerPart(BaseModel):
    """name: what accounts call the broker. url_host, port, tls: where devices reach it, unless an account says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64)
    url_host: str = "localhost"
    port: Port = 8884
    tls: bool = True

    @property
    def url(self) -> str:
        """The provision endpoint of accounts that name none of their own."""
        return f"{'mqtts' if self.tls else 'mqtt'}://{self.url_host}:{self.port}"
