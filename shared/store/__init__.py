"""Where results live: one small port (`base`), two implementations (`s3`, `folder`)."""
