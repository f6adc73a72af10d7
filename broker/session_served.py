"""What the gate does not serve, and refuses by itself: the CONNACK of MQTT 5 announces all of it [3.2.2.3].

Each check raises ProtocolViolation with the reason code that the specification has for the case.
"""

from broker.packets import V311, Connect, Publish, Subscribe, Version
from broker.reason_codes import ProtocolViolation, ReasonCode, protocol_error


def check_connect(connect: Connect, version: Version) -> None:
    """Before anybody is asked about the client."""
    # 3.1.3.1: a server may name clients itself; here a name is what admission looks up.
    if not connect.client_id:
        raise ProtocolViolation(ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "client identifier is empty")
    if version == V311:
        return
    # [MQTT-4.12.0-1]
    if connect.properties.authentication_method is not None:
        raise ProtocolViolation(ReasonCode.BAD_AUTHENTICATION_METHOD, "no authentication method is served")
    # [MQTT-3.2.2-12], [MQTT-3.2.2-13]
    if connect.will is not None and connect.will.qos == 2:
        raise ProtocolViolation(ReasonCode.QOS_NOT_SUPPORTED, "will QoS is above the maximum")
    if connect.will is not None and connect.will.retain:
        raise ProtocolViolation(ReasonCode.RETAIN_NOT_SUPPORTED, "will is to be retained")


def check_publish(publish: Publish, version: Version) -> None:
    """3.1.1 has no way to announce that QoS 2 and retain are not served: the session and its owner cope with both."""
    if version == V311:
        return
    # [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.3.2-9], [MQTT-3.3.4-6]
    if publish.qos == 2:
        raise ProtocolViolation(ReasonCode.QOS_NOT_SUPPORTED, "QoS is above the maximum")
    if publish.retain:
        raise ProtocolViolation(ReasonCode.RETAIN_NOT_SUPPORTED, "message is to be retained")
    if publish.properties.topic_alias is not None:
        raise ProtocolViolation(ReasonCode.TOPIC_ALIAS_INVALID, "topic alias is above the maximum")
    if publish.properties.subscription_identifiers:
        raise protocol_error("a client may not send subscription identifiers in PUBLISH")


def check_subscribe(subscribe: Subscribe) -> None:
    """Shared and wildcard filters are not refused here but one by one, in the SUBACK, by the owner (F-03, F-04)."""
    # 3.2.2.3.12
    if subscribe.properties.subscription_identifiers:
        raise ProtocolViolation(
            ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, "subscription identifiers are not served"
        )
