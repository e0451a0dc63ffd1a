//! NVMe controller (NVM Express Base 1.4).
