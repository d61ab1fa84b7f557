SUMMARY = "Vedette: the signed update"
DESCRIPTION = "RAUC bundle of root and kernel, as scripts/image makes it of the quick image."
LICENSE = "Apache-2.0 | MIT"

inherit bundle

RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_COMPATIBLE = "vedette-${MACHINE}"
RAUC_BUNDLE_VERSION = "${DISTRO_VERSION}"

RAUC_BUNDLE_SLOTS = "rootfs kernel"
RAUC_SLOT_rootfs = "vedette-image"
RAUC_SLOT_rootfs[fstype] = "squashfs-zst"
RAUC_SLOT_rootfs[rename] = "rootfs.img"
RAUC_SLOT_kernel = "vedette-boot"
RAUC_SLOT_kernel[type] = "file"
RAUC_SLOT_kernel[file] = "vedette-kernel.img"
RAUC_SLOT_kernel[rename] = "kernel.img"

RAUC_KEY_FILE = "${VEDETTE_KEYS}/signing.key.pem"
RAUC_CERT_FILE = "${VEDETTE_KEYS}/signing.cert.pem"
RAUC_KEYRING_FILE = "${VEDETTE_KEYS}/keyring.pem"
