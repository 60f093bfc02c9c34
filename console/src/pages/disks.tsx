import { clean } from "../clean";
import type { Status } from "../types";
import { size } from "../words";

/** The mirrors: each disk with its two legs, in words and not by colour alone. */
export function Disks(props: { status: Status }) {
  return (
    <section class="card" aria-label="Disks">
      <h2>Disks</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Table of disks">
        <table>
          <thead><tr><th scope="col">Disk</th><th scope="col">Role</th><th scope="col">Size</th><th scope="col">Mirror</th><th scope="col">Legs</th></tr></thead>
          <tbody>
            {props.status.disks.map((disk) => (
              <tr key={disk.name}>
                <th scope="row">{clean(disk.name)}</th>
                <td>{clean(disk.role)}</td>
                <td>{size(disk.size)}</td>
                <td>{disk.mirror === "None" ? "None (duplexed, no resync)" : clean(disk.mirror)}</td>
                <td>{disk.legs.map((leg) => `${leg.leg}: ${clean(leg.role)}`).join(", ")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
