package bench

import (
	"os"
	"path/filepath"

	"github.com/ebitengine/purego"

	"onceupon/bindings/student"
	"onceupon/trainer/fault"
)

// OpenBLAS is the library peer of multiplications.
type OpenBLAS struct {
	missing string
	sgemm   func(order, transA, transB, m, n, k int32, alpha float32, a *float32, lda int32, b *float32, ldb int32, beta float32, c *float32, ldc int32)
	threads func(n int32)
}

// openBLASNames are where OpenBLAS is looked for: the system's library, then
// that of the Python package scipy-openblas32, whose symbols have a prefix.
var openBLASNames = []string{"libopenblas.so.0", "libopenblas.so", "libscipy_openblas.so"}

// OpenOpenBLAS opens the library at path, or, with "", where the system has
// it. A library that is not there leaves its column empty, with the reason;
// a path that is given and cannot be opened is an error.
func OpenOpenBLAS(path string) (*OpenBLAS, error) {
	names := openBLASNames
	if path != "" {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			path = filepath.Join(path, "libscipy_openblas.so")
		}
		names = []string{path}
	}
	for _, name := range names {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			continue
		}
		for _, prefix := range []string{"", "scipy_"} {
			sgemm, err := purego.Dlsym(handle, prefix+"cblas_sgemm")
			if err != nil {
				continue
			}
			threads, err := purego.Dlsym(handle, prefix+"openblas_set_num_threads")
			if err != nil {
				continue
			}
			b := &OpenBLAS{}
			purego.RegisterFunc(&b.sgemm, sgemm)
			purego.RegisterFunc(&b.threads, threads)
			return b, nil
		}
	}
	if path != "" {
		return nil, fault.New(fault.Capability, "--openblas %s: not a shared library with cblas_sgemm", path)
	}
	return &OpenBLAS{missing: "OpenBLAS is not installed (libopenblas0 of Debian, scipy-openblas32 of PyPI, or --openblas FILE)"}, nil
}

// against times the same multiplication, rows x cols over depth, with its
// factors laid out for OpenBLAS's own best case: no transposition.
func (b *OpenBLAS) against(r *Result, cost student.BenchCost, o Options) error {
	if b.missing != "" {
		r.Peers = append(r.Peers, Peer{Name: "openblas", Missing: b.missing})
		return nil
	}
	const rowMajor, plain = 101, 111
	m, n, k := cost.Rows, cost.Cols, cost.Depth
	x, y, z := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	for i := range y {
		y[i] = float32(i%5) - 2
	}
	b.threads(int32(o.Threads))
	var peer Result
	err := peer.Sample(o.Count, o.Time, func(times int64) error {
		for range times {
			b.sgemm(rowMajor, plain, plain, int32(m), int32(n), int32(k), 1, &x[0], int32(k), &y[0], int32(n), 0, &z[0], int32(n))
		}
		return nil
	})
	r.against("openblas", peer.NsPerOp)
	return err
}
