"""Control packets to bytes, MQTT 3.1.1 and 5.0, both directions. Section numbers are those of MQTT 5."""

from broker.packets import Packet, Version


def encode(packet: Packet, version: Version) -> bytes:
    """The bytes of one packet.

    Raises ProtocolViolation when `version` cannot carry it: a property or reason code that does not exist there,
    AUTH in 3.1.1, a 3.1.1 password without a user name [MQTT-3.1.2-22], a field or packet that is too long.
    """
    raise NotImplementedError
