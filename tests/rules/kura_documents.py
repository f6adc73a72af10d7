"""Configuration documents as a gateway writes them, for the tests of the reader."""


def document(inside: str) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><esf:configurations xmlns:esf="http://eurotech.com/esf/2.0"'
        f' xmlns:ocd="http://www.osgi.org/xmlns/metatype/v1.2.0">{inside}</esf:configurations>'
    ).encode()


def one(attributes: str, values: str) -> bytes:
    """A document with one component p and one property n."""
    return document(
        '<esf:configuration pid="p"><esf:properties>'
        f'<esf:property name="n" {attributes}>{values}</esf:property></esf:properties></esf:configuration>'
    )
