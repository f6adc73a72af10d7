"""What one admitted connection may do, as data: exact topics, at most one wildcard of its own, its Will."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicRights:
    """Rights of one connection (EC-04). All names are full topics; nothing is a pattern but ``below``.

    publish: topics it may publish to.
    subscribe: filters it may subscribe to, literally.
    below: None, or a topic prefix that ends in "/": any filter below it is granted, ``prefix#`` included.
    wills: topics on which it may leave a Will; the gate delivers a Will to nobody.
    replies: filters over what a device may be asked to publish (``Exchange.expected_topics``). The gate permits
    those topics one by one and ignores these; a broker that cannot is told them once, and they hold a secret level.
    """

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()
    below: str | None = None
    wills: frozenset[str] = frozenset()
    replies: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.below is not None and not self.below.endswith("/"):
            raise ValueError("below must end with '/'")
        if any("#" in topic or "+" in topic or "\x00" in topic for topic in self.publish | self.wills):
            raise ValueError("a topic to publish to has no wildcard")

    def __or__(self, other: "TopicRights") -> "TopicRights":
        """The rights of both; only one side may carry a wildcard."""
        if self.below and other.below and self.below != other.below:
            raise ValueError("two wildcards in one set of rights")
        return TopicRights(
            self.publish | other.publish,
            self.subscribe | other.subscribe,
            self.below or other.below,
            self.wills | other.wills,
            self.replies | other.replies,
        )


@dataclass(frozen=True, slots=True)
class DeviceTopics:
    """What a device may use on its account broker: the topics at and below its own two prefixes (EC-31).

    Those are ``<account>/<client-id>`` and ``<control_prefix>/<account>/<client-id>``; both names fill one topic
    level each, so that a wildcard can only stand below them.
    """

    account: str
    client_id: str
    control_prefix: str = "$EDC"

    def __post_init__(self) -> None:
        for level in (self.account, self.client_id, self.control_prefix):
            if not level or any(c in level for c in "/#+\x00"):
                raise ValueError("a topic level is a non-empty text without / # + and NUL")

    @property
    def home(self) -> str:
        """``<account>/<client-id>``: no other device of any account has the same."""
        return f"{self.account}/{self.client_id}"

    def may_publish(self, topic: str) -> bool:
        return self._own(topic) and not any(c in topic for c in "#+\x00")

    def may_subscribe(self, topic_filter: str) -> bool:
        """True for filters that can match nothing but own topics; False for malformed ones too [MQTT-4.7.1]."""
        levels = topic_filter.split("/")
        stray = any(len(level) > 1 and ("#" in level or "+" in level) for level in levels)
        return self._own(topic_filter) and not stray and "#" not in levels[:-1] and "\x00" not in topic_filter

    def _own(self, topic: str) -> bool:
        return any(f"{topic}/".startswith(f"{prefix}{self.home}/") for prefix in ("", f"{self.control_prefix}/"))
