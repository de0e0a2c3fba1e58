# networkd and dhcpcd would both manage the interfaces; set networking.useDHCP = false
{ networking.useDHCP = true; }
