//! The C ABI of Wye.
