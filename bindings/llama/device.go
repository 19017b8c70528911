package llama

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/ebitengine/purego"

	"onceupon/bindings/nvidia"
	"onceupon/trainer/fault"
)

// Device is one that ggml can compute on.
type Device struct {
	Name, Description string // "CUDA0", "NVIDIA H200"; "CPU", ...
	Card              bool
	Free, Total       uint64 // bytes
	handle            uintptr
}

// Devices lists what was found; the processor is one of them.
func (l *Library) Devices() []Device {
	all := make([]Device, l.deviceCount())
	for i := range all {
		h := l.deviceGet(uint64(i))
		d := Device{Name: l.deviceName(h), Description: l.deviceDescription(h), Card: l.deviceType(h) == 1, handle: h}
		l.deviceMemory(h, &d.Free, &d.Total)
		all[i] = d
	}
	return all
}

// ParseDevice reads "cpu", "cuda" or "cuda:N".
func ParseDevice(text string) (card bool, index int, err error) {
	name, number, numbered := strings.Cut(text, ":")
	if text == "cpu" {
		return false, 0, nil
	}
	if name == "cuda" {
		if !numbered {
			return true, 0, nil
		}
		if index, err = strconv.Atoi(number); err == nil && index >= 0 && index < 64 {
			return true, index, nil
		}
	}
	return false, 0, fault.New(fault.Usage, "teacher device %q must be cpu, cuda or cuda:N", text)
}

// choose picks the card that was asked for; nil is the processor. Asking for a
// card that is not there is an error: ggml itself would go on without a word,
// a hundred times slower.
func choose(devices []Device, device string) (*Device, error) {
	card, index, err := ParseDevice(device)
	if err != nil || !card {
		return nil, err
	}
	cards := 0
	for i, d := range devices {
		if d.Card && strings.HasPrefix(d.Name, "CUDA") {
			if cards == index {
				return &devices[i], nil
			}
			cards++
		}
	}
	if cards > 0 {
		return nil, fault.New(fault.Capability, "teacher.device = %s: libllama sees %d cards, numbered from 0", device, cards)
	}
	return nil, fault.New(fault.Capability, "teacher.device = %s: libllama sees no card", device)
}

// cudaLibraries are opened in this order by full path, so that libggml-cuda
// finds them without a search path. A build against a toolkit of the system's
// has none of them in its folder.
var cudaLibraries = []string{"libcudart.so.%d", "libcublasLt.so.%d", "libcublas.so.%d"}

// openCUDA opens the CUDA libraries of a folder, if they are there.
func openCUDA(dir string) error {
	for major := 12; major <= 13; major++ {
		for _, pattern := range cudaLibraries {
			path := filepath.Join(dir, fmt.Sprintf(pattern, major))
			if _, err := os.Stat(path); err != nil {
				continue
			}
			if _, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
				return fault.New(fault.Capability, "%s: cannot be opened: %w: run `make teacher-cuda`", path, err)
			}
		}
	}
	return nil
}

// whyNoCard is the likeliest reason for a library without a card.
func whyNoCard(dir string) string {
	path := filepath.Join(dir, "libggml-cuda.so")
	if _, err := os.Stat(path); err != nil {
		return "no libggml-cuda.so in " + dir + ": run `make teacher-cuda`, or take --teacher-device cpu"
	}
	driver, err := nvidia.Open("")
	if err != nil {
		return err.Error() + "; take --teacher-device cpu"
	}
	if _, err := purego.Dlopen(path, purego.RTLD_NOW); err != nil {
		return fmt.Sprintf("%s: %v: run `make teacher-cuda`", path, err)
	}
	return fmt.Sprintf("%s; `onceupon teacher runtime` says which libllama suits it", driver)
}

// requireCard refuses a library that fell back to the processor.
func (l *Library) requireCard(device string) error {
	if _, err := choose(l.Devices(), device); err != nil {
		cards := 0
		for _, d := range l.Devices() {
			if d.Card {
				cards++
			}
		}
		if cards == 0 {
			return fmt.Errorf("%w: %s", err, whyNoCard(l.dir))
		}
		return err
	}
	return nil
}

// place puts a device into the parameters of a model. The list must outlive
// the load: pin it.
func (l *Library) place(p *modelParams, device string, pin *runtime.Pinner) (*Device, error) {
	d, err := choose(l.Devices(), device)
	if err != nil {
		return nil, err
	}
	list := make([]uintptr, 2) // ended by a null
	pin.Pin(&list[0])
	p.splitMode, p.mainGPU = 0, 0 // one device takes all
	if d == nil {
		p.gpuLayers = 0
	} else {
		list[0] = d.handle
		p.gpuLayers = -1
	}
	p.devices = address(list)
	return d, nil
}

// offloaded compares the card's free memory before and after a load with what
// the weights take, all but the embedding, which stays in the machine. Half is
// enough, since others may use the card too.
func offloaded(before, after, weights uint64) bool {
	return before > after && before-after >= weights/2
}
