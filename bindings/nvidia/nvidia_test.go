package nvidia

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"onceupon/trainer/fault"
)

// driver compiles a library with the driver's functions, as they behave with
// the given status of cuInit and number of cards.
func driver(t *testing.T, name, definitions string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip(err)
	}
	source, out := filepath.Join(t.TempDir(), "driver.c"), filepath.Join(t.TempDir(), name)
	text := definitions + `
#include <string.h>
int cuInit(unsigned flags) { return flags ? 1 : STATUS; }
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuDeviceGetCount(int *n) { *n = CARDS; return 0; }
int cuDeviceGet(int *d, int i) { *d = 10 + i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, d == 10 ? "Card A" : "Card B", n); return 0; }
int cuDeviceGetAttribute(int *v, int which, int d) { *v = which == 75 ? 9 : which == 76 ? d - 10 : -1; return 0; }
#ifndef OLD
int cuDeviceTotalMem_v2(unsigned long long *n, int d) { *n = (unsigned long long)(d - 9) << 34; return 0; }
#endif
`
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(cc, "-shared", "-fPIC", "-o", out, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

func TestCards(t *testing.T) {
	d, err := Open(driver(t, "two.so", "#define STATUS 0\n#define CARDS 2"))
	if err != nil || d.CUDA != 13010 || len(d.Cards) != 2 || d.Cards[1].Name != "Card B" || d.Cards[1].Capability() != 91 || d.Cards[1].Bytes != 32<<30 {
		t.Errorf("%+v, %v", d, err)
	}
	if s := d.String(); s != "driver of CUDA 13.1, Card A (9.0, 16 GiB), Card B (9.1, 32 GiB)" {
		t.Error(s)
	}
}

func TestNoCards(t *testing.T) {
	for says, path := range map[string]string{
		"no NVIDIA driver":    filepath.Join(t.TempDir(), "none.so"),
		"sees no card":        driver(t, "none.so", "#define STATUS 100\n#define CARDS 0"),
		"cuInit gave 803":     driver(t, "mismatch.so", "#define STATUS 803\n#define CARDS 0"),
		"has no cuDeviceTota": driver(t, "old.so", "#define STATUS 0\n#define CARDS 1\n#define OLD"),
	} {
		_, err := Open(path)
		if fault.Code(err) != int(fault.Capability) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v; want one line with %q", err, says)
		}
	}
}
