package student

import (
	"os"
	"runtime"
	"testing"
)

// A thread has a current card of its own, and Go calls from any thread: a student of
// the second card works from one that never heard of it.
func TestSecondCardEmulated(t *testing.T) {
	library := os.Getenv("ONCEUPON_CUDA_EMULATED")
	if library == "" {
		t.Skip("ONCEUPON_CUDA_EMULATED is not set: make test-emulation sets it")
	}
	t.Setenv("ONCEUPON_CUDA_LIBRARY", library)
	t.Setenv("EMULATION_DEVICE", "two")
	t.Setenv("ONCEUPON_CUDA_DEVICE", "1")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	m := newModel(t, tiny, "cuda", "auto", 1)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not the thread above, which is taken
		defer runtime.UnlockOSThread()
		err := m.Forward(randomBatch(3, 5), nil, NewScores(8, false))
		if err == nil {
			_, err = m.Generate(Pack([][]int32{{4, 5, 6}}), []uint64{1}, Generation{MaxNewTokens: 2, TopP: 1, EndToken: -1})
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
