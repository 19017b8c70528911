package llama

import (
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Watch looks into the graph while libllama computes it: for comparing numbers
// where they arise. It makes libllama stop at each node that is wanted, so it
// is slow.
type Watch struct {
	// Wants chooses nodes by the names that libllama gives them, such as
	// "ffn_gelu-0".
	Wants func(name string) bool
	// Sees gets the numbers of a wanted F32 node right after they were computed.
	// When it returns true, what it left in values takes their place.
	Sees func(name string, values []float32) bool
}

// A callback lives as long as the process, so there is one for all contexts;
// libllama hands it the number of the context's watch.
var watches struct {
	sync.Mutex
	callback uintptr
	last     uintptr
	list     map[uintptr]watched
}

type watched struct {
	library *Library
	*Watch
}

// watch registers a watch; it returns the callback and the number that stands
// for the watch.
func (l *Library) watch(w *Watch) (callback, number uintptr) {
	watches.Lock()
	defer watches.Unlock()
	if watches.list == nil {
		watches.list = map[uintptr]watched{}
		watches.callback = purego.NewCallback(onNode)
	}
	watches.last++
	watches.list[watches.last] = watched{l, w}
	return watches.callback, watches.last
}

func unwatch(number uintptr) {
	watches.Lock()
	defer watches.Unlock()
	delete(watches.list, number)
}

// onNode is a ggml_backend_sched_eval_callback: asked before a node whether it
// is wanted, and told after it; false then would end the evaluation.
func onNode(tensor uintptr, ask bool, number uintptr) bool {
	watches.Lock()
	w := watches.list[number]
	watches.Unlock()
	name := w.library.tensorName(tensor)
	if ask {
		return w.Wants(name)
	}
	values := make([]float32, w.library.tensorElements(tensor))
	bytes := w.library.tensorBytes(tensor)
	if len(values) == 0 || bytes != uint64(4*len(values)) {
		return true // of another type, or with gaps
	}
	at := unsafe.Pointer(&values[0])
	w.library.tensorGet(tensor, at, 0, bytes)
	if w.Sees(name, values) {
		w.library.tensorSet(tensor, at, 0, bytes)
	}
	return true
}
