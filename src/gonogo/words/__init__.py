"""Every sentence a user reads, in English and Chinese, by reason code or message name."""
