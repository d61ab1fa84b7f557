SUMMARY = "Vedette: RAUC's way to GRUB's counters"
DESCRIPTION = "RAUC's custom bootloader backend for config/device/boot/grub.cfg, on machines with UEFI firmware."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"

FILESEXTRAPATHS:prepend := "${VEDETTE_CHECKOUT}/config/device/boot:${VEDETTE_CHECKOUT}:"
SRC_URI = "file://LICENSE file://grubenv"
S = "${UNPACKDIR}"

COMPATIBLE_MACHINE = "^genericarm64$"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_libdir}/vedette
    install -m 0755 ${S}/grubenv ${D}${nonarch_libdir}/vedette/grubenv
}

FILES:${PN} = "${nonarch_libdir}/vedette/grubenv"
RDEPENDS:${PN} = "util-linux-flock"
