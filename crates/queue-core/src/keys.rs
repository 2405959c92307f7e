//! API keys: `lsk_<8 characters id>_<43 characters secret>`.
