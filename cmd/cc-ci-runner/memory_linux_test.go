package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// The pages of the program leave the process, and it goes on as before.
func TestDropProgramPages(t *testing.T) {
	before := residentFiles(t)
	if err := dropProgramPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentFiles(t); after >= before {
		t.Errorf("the process holds %d KiB of files, and held %d before", after, before)
	}
	if _, err := os.ReadFile("/proc/self/smaps"); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// residentFiles is how much of files the process holds in memory, in KiB.
func residentFiles(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssFile:")
	size, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return size
}
