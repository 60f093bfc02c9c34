// A dialog of the browser's own kind: it keeps the keyboard inside, closes with Escape and gives the focus back.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";

export function Dialog(props: { title: string; close: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const title = useId();
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => { if (before instanceof HTMLElement) before.focus(); };
  }, []);
  return (
    <dialog ref={element} aria-labelledby={title} onCancel={(event) => { event.preventDefault(); props.close(); }}>
      <h2 id={title}>{props.title}</h2>
      {props.children}
    </dialog>
  );
}
