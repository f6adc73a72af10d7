"""What one admitted connection may do, as data: exact topics, at most one wildcard of its own, its Will."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopicRights:
    """Rights of one connection (EC-04). All names are full topics; nothing is a pattern but ``below``.

    publish: topics it may publish to.
    subscribe: filters it may subscribe to, literally.
    below: None, or a topic prefix that ends in "/": any filter below it is granted, ``prefix#`` included.
    wills: topics on which it may leave a Will; the gate delivers a Will to nobody.
    """

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()
    below: str | None = None
    wills: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.below is not None and not self.below.endswith("/"):
            raise ValueError("below must end with '/'")
        if any(c in topic for topic in self.publish | self.wills for c in "#+\x00"):
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
        )
