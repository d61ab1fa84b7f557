# Of other distributions nothing is changed.
FILESEXTRAPATHS:prepend:vedette-os := "${THISDIR}/../../../../recipes-kernel/linux/files:"
SRC_URI:append:vedette-os = " file://vedette.cfg"
