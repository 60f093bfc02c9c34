import { defineConfig } from "vitest/config";

// The pages are served from memory under a policy without anything inline, so nothing is put into the HTML or the CSS.
export default defineConfig({
  build: {
    outDir: "../target/console",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  test: { testTimeout: 60_000, hookTimeout: 60_000, fileParallelism: false },
});
