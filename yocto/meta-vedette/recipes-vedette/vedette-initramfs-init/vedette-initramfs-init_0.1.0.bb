SUMMARY = "Vedette: the initramfs's first process"
DESCRIPTION = "Mounts the slot's root and hands over to its preinit: config/quick-image/initramfs-init as it is."
SECTION = "base"
LICENSE = "Apache-2.0 | MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=49ab4ab0f7a6573eeed6216335b854a8"

FILESEXTRAPATHS:prepend := "${VEDETTE_CHECKOUT}/config/quick-image:${VEDETTE_CHECKOUT}/config/device/root/etc:${VEDETTE_CHECKOUT}:"
SRC_URI = "file://LICENSE file://initramfs-init file://fw_env.config"
S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${sysconfdir}
    install -m 0755 ${S}/initramfs-init ${D}/init
    install -m 0644 ${S}/fw_env.config ${D}${sysconfdir}/fw_env.config
    # What finds the disk is in the kernel itself (vedette.cfg); modprobe says of a name that it is.
    echo squashfs >${D}/modules
    install -d ${D}/root
}

FILES:${PN} = "/init /modules /root ${sysconfdir}/fw_env.config"
