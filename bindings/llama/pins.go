package llama

import (
	"os"
	"path/filepath"
	"strings"
)

// pins are the sha256 of the libraries that this package's struct layouts
// were checked against: npm @node-llama-cpp/linux-x64 and linux-x64-cuda 3.22.1,
// llama.cpp v0.5.0 (third_party/llama/SHA256SUMS, third_party/llama-cuda).
var pins = map[string][]string{
	"libggml-base.so":         {"6c342c8aeb20cb31a18099d6f79de4de6703814d1cfd5c4d754a8643087e486e"},
	"libggml.v0.5.0.so":       {"41cd5e6ad78b9f0af31a6f80d637d3168e75ff84db14c495de4d3d9c95607444"},
	"libllama.v0.5.0.so":      {"2ecd1d85f68456573a664106a9039366b88231579fd65d9669c9a6ab41374fd4"},
	"libggml.cuda.v0.5.0.so":  {"a95bdba2e3bb6cc95803448a7fee59b651c406a8959b6cbf0d995cd0ab8375f7"},
	"libllama.cuda.v0.5.0.so": {"1bc3a883d49c77292e164047267bfdda947d7ecf790b10443fc36cf0c8fbcb38"},
	// Of linux-x64-cuda (CUDA 13) and linux-x64-cuda-ext (CUDA 12).
	"libggml-cuda.so": {"f00882ca593ddf380778f5ac835690bcdaad951cd4700829c7a03aa0c32bcf47", "4f46521c1a9d4aa04c412977ac717018c1d607eec871a438ee2ee270f220c9e4"},
}

// libraries are opened in this order, with global scope, since each one needs
// symbols of those before it. The other names are those of the CUDA package and
// of a build from source.
var libraries = [3][]string{
	{"libggml-base.so"},
	{"libggml.v0.5.0.so", "libggml.cuda.v0.5.0.so", "libggml.so"},
	{"libllama.v0.5.0.so", "libllama.cuda.v0.5.0.so", "libllama.so"},
}

// vouched is the sum that a folder states itself: that of a build from the pinned
// source (scripts/fetch-teacher-cuda), which differs from machine to machine.
func vouched(path string) string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), "SHA256SUMS"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if sum, name, _ := strings.Cut(strings.TrimSpace(line), "  "); name == filepath.Base(path) {
			return sum
		}
	}
	return ""
}
