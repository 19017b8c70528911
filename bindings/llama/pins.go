package llama

// pins are the sha256 of the libraries that this package's struct layouts
// were checked against: npm @node-llama-cpp/linux-x64 3.22.1, llama.cpp
// v0.5.0 (third_party/llama/SHA256SUMS).
var pins = map[string]string{
	"libggml-base.so":    "6c342c8aeb20cb31a18099d6f79de4de6703814d1cfd5c4d754a8643087e486e",
	"libggml.v0.5.0.so":  "41cd5e6ad78b9f0af31a6f80d637d3168e75ff84db14c495de4d3d9c95607444",
	"libllama.v0.5.0.so": "2ecd1d85f68456573a664106a9039366b88231579fd65d9669c9a6ab41374fd4",
}

// libraries are opened in this order, with global scope, since each one needs
// symbols of those before it. The second name is what a build from source
// calls it.
var libraries = [3][2]string{
	{"libggml-base.so", "libggml-base.so"},
	{"libggml.v0.5.0.so", "libggml.so"},
	{"libllama.v0.5.0.so", "libllama.so"},
}
