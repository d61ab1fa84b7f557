# Of other distributions nothing is changed.
FILESEXTRAPATHS:prepend:vedette-os := "${VEDETTE_CHECKOUT}/config/device/root/etc/rauc:"
FILESEXTRAPATHS:append:vedette-os := ":${VEDETTE_KEYS}"
RAUC_KEYRING_FILE:vedette-os = "keyring.pem"
DEPENDS:append:vedette-os = " openssl-native"
PACKAGE_ARCH:vedette-os = "${MACHINE_ARCH}"
FILES:${PN}:append:vedette-os = " ${sysconfdir}/rauc"
RDEPENDS:${PN}:append:vedette-os = " ${@'vedette-' + d.getVar('VEDETTE_BACKEND') if d.getVar('VEDETTE_BACKEND') else ''}"

do_install:append:vedette-os() {
    # A device that trusts keys which anybody may have is nobody's.
    if [ "${VEDETTE_DEVELOPMENT}" != 1 ] && openssl x509 -noout -subject -in ${UNPACKDIR}/keyring.pem | grep -qi development; then
        bbfatal "keyring.pem is a development key: name a folder with others in VEDETTE_KEYS, or build with kas/dev.yml"
    fi
    conf=${D}${nonarch_libdir}/rauc/system.conf
    sed -i -e 's,@COMPATIBLE@,vedette-${MACHINE},' -e 's,@BOOTLOADER@,${VEDETTE_BOOTLOADER},' $conf
    if [ "${VEDETTE_BOOTLOADER}" = custom ]; then
        # These two are of U-Boot's counters; our script keeps its own.
        sed -i -e '/^boot-attempts/d' $conf
        printf '\n[handlers]\nbootloader-custom-backend=${nonarch_libdir}/vedette/${VEDETTE_BACKEND}\n' >>$conf
    fi
    # Where system.conf looks for it, on both images.
    install -d ${D}${sysconfdir}/rauc
    mv ${D}${nonarch_libdir}/rauc/keyring.pem ${D}${sysconfdir}/rauc/keyring.pem
}
