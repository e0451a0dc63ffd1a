//! Virtio over PCI (VIRTIO 1.2 §4.1): transport, network device, entropy device.
