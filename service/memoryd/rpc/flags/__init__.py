"""The tools' settings in the protocol of flagd, for providers of OpenFeature."""
