SUMMARY = "Vedette: the disk of a device"
DESCRIPTION = "Root file system, read-only, and the disk with two slots and /data."
LICENSE = "Apache-2.0 | MIT"

inherit image

IMAGE_FEATURES = "read-only-rootfs"
IMAGE_LINGUAS = ""
# The first is what the bundle takes.
IMAGE_FSTYPES = "squashfs-zst wic wic.bmap"
WKS_FILE = "vedette.wks.in"

VEDETTE_FIREWALL = "${@bb.utils.contains('BBFILE_COLLECTIONS', 'networking-layer', 'nftables chrony', '', d)}"
IMAGE_INSTALL = " \
    base-files \
    base-passwd \
    busybox \
    ca-certificates \
    kernel-modules \
    rauc-conf \
    vedette \
    vedette-config \
    ${VEDETTE_FIREWALL} \
"

# Layer and recipes can be read and planned without these; a device without a firewall is not made.
python vedette_firewall() {
    if not d.getVar("VEDETTE_FIREWALL"):
        bb.fatal("no nftables and no chrony: add meta-networking of meta-openembedded to the layers")
}
do_rootfs[prefuncs] += "vedette_firewall"

# Which kernel stands in the slot, wic is not to know.
PACKAGE_EXCLUDE = "kernel-image-*"

# What the boot partition holds; the Raspberry Pi 3 looks for it in the old partition table, of the same disk.
VEDETTE_PTABLE = "gpt"
VEDETTE_PTABLE:raspberrypi3-64 = "gpt-hybrid"
VEDETTE_BOOT_OPTIONS = ""
VEDETTE_BOOT_OPTIONS:raspberrypi3-64 = "--mbr"
IMAGE_BOOT_FILES = "vedette-boot.scr;boot.scr"
IMAGE_BOOT_FILES:rpi = "${BOOTFILES_DIR_NAME}/* ${@make_dtb_boot_files(d)} u-boot.bin;${SDIMG_KERNELIMAGE} vedette-boot.scr;boot.scr"
IMAGE_BOOT_FILES:raspberrypi5 = "autoboot.txt"
IMAGE_BOOT_FILES:genericarm64 = "grub-efi-bootaa64.efi;EFI/BOOT/bootaa64.efi vedette-grub.cfg;EFI/BOOT/grub.cfg vedette-grubenv;EFI/BOOT/grubenv"
VEDETTE_LOADER = ""
VEDETTE_LOADER:genericarm64 = "grub-efi:do_deploy"
do_image_wic[depends] += "vedette-boot:do_deploy ${VEDETTE_LOADER}"
WICVARS:append = " VEDETTE_PTABLE VEDETTE_BOOT_OPTIONS"

# The two lines by which whoever asks for support is known.
vedette_os_release() {
    printf 'IMAGE_ID=%s\nIMAGE_VERSION=%s\n' "vedette-${MACHINE}" "${DISTRO_VERSION}" >>${IMAGE_ROOTFS}${nonarch_libdir}/os-release
}
ROOTFS_POSTPROCESS_COMMAND += "vedette_os_release"
