"""The filters that were granted to one connection. Pure."""

from collections.abc import Sequence

from broker.access import Rights, covers, may_subscribe
from broker.packets import Subscription
from broker.reason_codes import ReasonCode

QOS_MAX = 1


class Subscriptions:
    """Filters with their granted QoS; at most ``filters_max``."""

    __slots__ = ("_filters_max", "_granted")

    def __init__(self, filters_max: int) -> None:
        self._filters_max = filters_max
        self._granted: dict[str, int] = {}

    def grant(self, rights: Rights, wanted: Sequence[Subscription]) -> list[int]:
        """Each on its own, in order (F-03): the granted QoS, or the MQTT 5 code of the refusal (F-02, F-04)."""
        return [self._grant_one(rights, one) for one in wanted]

    def forget(self, topic_filters: Sequence[str]) -> list[int]:
        """The MQTT 5 codes of UNSUBACK."""
        found = (self._granted.pop(one, None) is not None for one in topic_filters)
        return [ReasonCode.SUCCESS if one else ReasonCode.NO_SUBSCRIPTION_EXISTED for one in found]

    def qos(self, topic: str) -> int | None:
        """The highest QoS of those that cover the topic; None: not subscribed."""
        granted = self._granted.get(topic)
        if granted == QOS_MAX:
            return granted
        return max((qos for one, qos in self._granted.items() if covers(one, topic)), default=None)

    def _grant_one(self, rights: Rights, wanted: Subscription) -> int:
        topic_filter = wanted.topic_filter
        if topic_filter.startswith("$share/"):
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
        if not may_subscribe(rights, topic_filter):
            return ReasonCode.NOT_AUTHORIZED
        if topic_filter not in self._granted and len(self._granted) >= self._filters_max:
            return ReasonCode.QUOTA_EXCEEDED
        qos = min(wanted.qos, QOS_MAX)
        self._granted[topic_filter] = qos
        return qos
