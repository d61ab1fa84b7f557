SUMMARY = "Vedette: RAUC's way to the Raspberry Pi 5's own A/B switch"
DESCRIPTION = "RAUC's custom bootloader backend for tryboot and autoboot.txt."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"

FILESEXTRAPATHS:prepend := "${VEDETTE_CHECKOUT}:"
SRC_URI = "file://LICENSE file://tryboot"
S = "${UNPACKDIR}"

COMPATIBLE_MACHINE = "^raspberrypi5$"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${nonarch_libdir}/vedette
    install -m 0755 ${S}/tryboot ${D}${nonarch_libdir}/vedette/tryboot
}

FILES:${PN} = "${nonarch_libdir}/vedette/tryboot"
