"""What a broker in the place of the gate has to know of topics: whose a topic is, and who may use it.

There a message says nothing of its connection, so the client id has to stand in the topic, as a level of its own. A
dialect that speaks to all of its devices on one topic cannot be used over such a link.
"""

from collections.abc import Iterable, Iterator, Sequence

from provisioner.model.errors import InvalidInput, Problem
from provisioner.model.ports import Dialect
from provisioner.model.topics import TopicRights

_SAMPLE = "a-client-id-that-stands-for-all"


class LinkTopics:
    """The topics of these dialects. Raises InvalidInput that names each dialect whose devices share a topic."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        shared = [problem for dialect in dialects for problem in _shared(dialect)]
        if shared:
            raise InvalidInput(shared)
        self._dialects = tuple(dialects)
        sample = self.rights(_SAMPLE)
        self._farewells = _for_all(sample.wills)
        self._said = _for_all(sample.publish) | self._farewells
        self._heard = _for_all(_filters_heard(sample))
        self._replies = _for_all(sample.replies)
        self._places = sorted({each.split("/").index("+") for each in self._said})

    def rights(self, client_id: str) -> TopicRights:
        """Of a device, in every dialect."""
        rights = TopicRights()
        for dialect in self._dialects:
            rights |= dialect.rights(client_id)
        return rights

    @property
    def filters(self) -> Sequence[str]:
        """What the provisioner subscribes to: everything that a device may publish, Wills included."""
        return sorted(self._said | self._replies)

    def client_id(self, topic: str) -> str | None:
        """Whose topic it is. None: it names nobody, as the topics of replies do not."""
        return self._find(topic, self._said)

    def is_farewell(self, topic: str) -> bool:
        """Whether the broker says this in the name of a device that it lost."""
        return self._find(topic, self._farewells) is not None

    def access(self, client_id: str) -> Sequence[str]:
        """What a device may do, as lines of mosquitto's ACL file below its ``user``."""
        rights = self.rights(client_id)
        write = sorted(rights.publish | rights.wills | rights.replies)
        return [*(f"topic write {each}" for each in write), *(f"topic read {each}" for each in _filters_heard(rights))]

    def own_access(self) -> Sequence[str]:
        """What the provisioner may do: the same the other way round, for every client id."""
        read = (f"topic read {each}" for each in self.filters)
        return [*read, *(f"topic write {each}" for each in sorted(self._heard))]

    def _find(self, topic: str, shapes: frozenset[str]) -> str | None:
        levels = topic.split("/")
        for at in self._places:
            if at < len(levels) and "/".join((*levels[:at], "+", *levels[at + 1 :])) in shapes:
                return levels[at]
        return None


def _filters_heard(rights: TopicRights) -> Sequence[str]:
    below = (f"{rights.below}#",) if rights.below is not None else ()
    return [*sorted(rights.subscribe), *below]


def _for_all(filters: Iterable[str]) -> frozenset[str]:
    return frozenset("/".join("+" if level == _SAMPLE else level for level in each.split("/")) for each in filters)


def _shared(dialect: Dialect) -> Iterator[Problem]:
    rights = dialect.rights(_SAMPLE)
    topics = sorted({*rights.publish, *rights.wills, *_filters_heard(rights)})
    for topic in topics:
        if topic.split("/").count(_SAMPLE) != 1:
            rule = "cannot be used with provision_link: its devices share a topic, on which a broker tells none apart"
            yield Problem(f"dialect {dialect.name}", rule, f"{topic!r}")
            return
