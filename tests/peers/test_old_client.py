"""The picture, seen by the old `opcua` package that the original sample was written with."""

from conftest import picture
from opcua import Client


def test_the_picture_is_read_and_monitored(vedette):
    client = Client(vedette.url)
    client.connect()
    try:
        objects = client.get_objects_node()
        image = objects.get_child(["2:Camera Device", "2:Camera Image"])
        assert picture(image.get_value()).size == (640, 480)

        pictures = []

        class Handler:
            def datachange_notification(self, node, value, data):
                pictures.append(value)

        subscription = client.create_subscription(100, Handler())
        subscription.subscribe_data_change(image)
        from conftest import wait_until

        wait_until("pictures", lambda: len(pictures) >= 3)
        assert picture(pictures[-1]).size == (640, 480)
        subscription.delete()

        set_point = objects.get_child(["2:Tags", "2:demo", "2:set_point"])
        set_point.set_value(20.0)
        assert set_point.get_value() == 20.0
    finally:
        client.disconnect()
