/** What an empty server shows: the way to its first system. */
export function First() {
  return (
    <section class="card">
      <h2>There is no system yet</h2>
      <p>A system is a virtual machine whose disks are kept twice, so that it can be divided and upgraded while it serves. Make the first one on the server's command line, from an image that it can read:</p>
      <pre tabIndex={0}>{"flipside system create shop --system-disk debian.qcow2 --data-disk 20G\nflipside system start shop"}</pre>
      <p>It appears here by itself. To see the whole story first, on a guest that is made for it: <code>flipside demo</code>.</p>
    </section>
  );
}
