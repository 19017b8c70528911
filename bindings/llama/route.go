package llama

import (
	"fmt"
	"runtime"

	"onceupon/bindings/nvidia"
	"onceupon/trainer/fault"
)

// Route is a way to libllama for a card.
type Route struct {
	Name string `json:"route"` // cuda13, cuda12 or source
	Why  string `json:"why"`
}

// What the two prebuilt libggml-cuda hold (their fat binaries, read): machine
// code starts at once and on later minors of its major; PTX is compiled by the
// driver on first use, which must be at least as new as the CUDA that made it.
//
//	cuda13 (linux-x64-cuda, CUDA 13.1):     code 8.6 8.9 12.0 12.1, PTX 7.5 8.0 9.0
//	cuda12 (linux-x64-cuda-ext, CUDA 12.x): code 8.6, PTX 5.0 6.1 7.0 7.5 8.0
var cuda13Code = map[int]bool{86: true, 87: true, 89: true, 120: true, 121: true}

// ChooseRoute picks the libllama that a card and its driver can run.
func ChooseRoute(d nvidia.Driver, c nvidia.Card) (Route, error) {
	capability, runs := c.Capability(), fmt.Sprintf("a driver of CUDA %d.%d", d.CUDA/1000, d.CUDA%1000/10)
	card := fmt.Sprintf("%s (compute capability %d.%d)", c.Name, c.Major, c.Minor)
	switch {
	case runtime.GOARCH != "amd64":
		return Route{"source", fmt.Sprintf("%s on %s: the packages are for x86-64, libllama is built for this machine", card, runtime.GOARCH)}, nil
	case capability < 50:
		return Route{}, fault.New(fault.Capability, "%s is too old: libllama wants 5.0 or newer", card)
	case d.CUDA < 12000:
		return Route{}, fault.New(fault.Capability, "%s with %s: CUDA 12 or 13 is needed, install a newer driver", card, runs)
	case d.CUDA >= 13000 && cuda13Code[capability]:
		return Route{"cuda13", fmt.Sprintf("%s with %s: the CUDA 13 package has its machine code", card, runs)}, nil
	case d.CUDA >= 13010 && capability >= 75:
		return Route{"cuda13", fmt.Sprintf("%s with %s: the CUDA 13 package, whose PTX the driver compiles on first use (minutes, then cached: set CUDA_CACHE_MAXSIZE=4294967296)", card, runs)}, nil
	case capability == 86:
		return Route{"cuda12", fmt.Sprintf("%s with %s: the CUDA 12 package has its machine code", card, runs)}, nil
	case capability >= 100 && d.CUDA < 12080:
		return Route{}, fault.New(fault.Capability, "%s with %s: install a driver of CUDA 12.8 or newer", card, runs)
	default:
		return Route{"cuda12", fmt.Sprintf("%s with %s: the CUDA 12 package, whose PTX the driver compiles on first use (minutes, then cached: set CUDA_CACHE_MAXSIZE=4294967296); `make teacher-cuda ROUTE=source` builds machine code", card, runs)}, nil
	}
}
