# What boot/grub.cfg of config/device uses beside what is there. Of other distributions nothing is changed.
GRUB_BUILDIN:append:vedette-os = " echo gcry_sha256 hashsum reboot regexp sleep"
