# What boot/grub.cfg of config/device uses beside what is there. Of other distributions nothing is changed.
GRUB_BUILDIN:append:vedette-os = " echo reboot regexp sleep"
