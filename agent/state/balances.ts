/** The pickers that OpenResty has, as `balance` names them: `lua/reloadless/balance/picker/list.lua`. */
export const balances = ['round_robin', 'least_conn', 'ewma', 'random', 'hash'] as const;
export type Balance = (typeof balances)[number];
