SUMMARY = "Vedette: initramfs that finds the slot's root"
DESCRIPTION = "Busybox, fw_setenv, and the same first process as the quick image's."
LICENSE = "Apache-2.0 | MIT"

inherit image

IMAGE_FEATURES = ""
IMAGE_LINGUAS = ""
IMAGE_FSTYPES = "cpio.zst"
IMAGE_NAME_SUFFIX = ""
PACKAGE_INSTALL = "busybox libubootenv-bin vedette-initramfs-init"
# By which a root that is damaged is given up.
PACKAGE_INSTALL:append:genericarm64 = " vedette-grubenv"
PACKAGE_EXCLUDE = "kernel-image-*"
# It is root's and nobody's else.
IMAGE_ROOTFS_EXTRA_SPACE = "0"
NO_RECOMMENDATIONS = "1"
