// Files of the browser's own machine, read here: gradio keeps none of them. The server takes
// `props.value.files`, and answers with none; `largest` is how many bytes it takes at once.
const input = element.querySelector("input");

const read = (file) => new Promise((done) => {
  const reader = new FileReader();
  reader.onload = () => done({ name: file.name, size: file.size, data: reader.result.split(",")[1] ?? "" });
  reader.onerror = () => done({ name: file.name, size: file.size });
  reader.readAsDataURL(file);
});

input.addEventListener("change", async () => {
  const files = [...input.files], { largest } = props.value;
  const size = files.reduce((sum, file) => sum + file.size, 0);
  const told = files.map((file) => ({ name: file.name, size: file.size }));
  props.value = { largest, files: size > largest ? told : await Promise.all(files.map(read)) };
  input.value = ""; // so that the same file can be chosen again
  trigger("input");
});
