"""Prompt methods: host x form, one file a host."""
