"""OPC UA, seen by node-opcua, the third independent stack."""

import pytest


def test_a_value_is_read(vedette, node):
    assert node(vedette).run("return (await session.read({nodeId: 'i=2259', attributeId: 13})).value.value") == 0
