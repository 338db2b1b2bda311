"""Networks of ours as files of LiteRT, and LiteRT for AArch64 in an emulator."""
